"""Nearest-neighbour indexes of other libraries, as the thesis uses them; each is an extra."""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regraft.errors import InputError, MissingDependency, unknown
from regraft.kernels import native
from regraft.search.neighbours import Floats, Integers, Nearest, by_neighbours, check_k_similar
from regraft.search.protocol import Found, Metric, Query, door

FaissKind = Literal["flat", "ivf", "hnsw"]


def _library(name: str, package: str, extra: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of them use what Python deprecates
            return importlib.import_module(name)
    except ImportError:
        raise MissingDependency(package, extra, f"the search with {name}") from None


def _columns(query: Query) -> Floats:
    return np.ascontiguousarray(query.columns.cpu().numpy())


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a positive integer")


@dataclass(frozen=True)
class Faiss:
    """Search through an index of faiss (Johnson et al. 2019), built anew at each call (thesis 4, chapter 3).

    Args:
        kind: ``"flat"`` compares with every column; ``"ivf"`` with those in ``probes`` of sqrt(n_in) cells;
            ``"hnsw"`` walks a graph with ``links`` links for each column.
        k_similar: neighbours for each row, as a fraction of the columns in (0, 1].
        probes: cells that are looked into.
        links: links of the graph.

    >>> Faiss(k_similar=2)
    Traceback (most recent call last):
    ...
    regraft.errors.InputError: k_similar is 2, but must be in (0, 1]: 0.15 asks for the 15 % most similar
    columns of each row

    Raises:
        InputError: an unknown kind, a fraction outside (0, 1], a count below 1.
        MissingDependency: on the call, without the extra ``regraft[faiss]``.
    """

    kind: FaissKind = "flat"
    k_similar: float = 0.15
    probes: int = 8
    links: int = 32

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaissKind):
            raise unknown("kind of faiss index", self.kind, get_args(FaissKind))
        check_k_similar(self.k_similar)
        _check_positive("probes", self.probes)
        _check_positive("links", self.links)

    @torch.no_grad()
    def __call__(
        self, rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
    ) -> Found:
        query = door(rows, columns, k, exclude, metric)
        faiss = _library("faiss", "faiss-cpu", "faiss")
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(native.get_threads())
        try:
            return by_neighbours(query, self._nearest(faiss, query), self.k_similar)
        finally:
            faiss.omp_set_num_threads(before)

    def _nearest(self, faiss: Any, query: Query) -> Nearest:
        columns = _columns(query)
        n, samples = columns.shape
        kind = faiss.METRIC_L2 if query.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        flat = faiss.IndexFlat(samples, kind)
        index = flat
        if self.kind == "ivf":
            cells = max(1, min(math.isqrt(n), n // 39))  # faiss wants 39 columns for each cell
            index = faiss.IndexIVFFlat(flat, samples, cells, kind)
            index.nprobe = min(self.probes, cells)
            index.train(columns)
        elif self.kind == "hnsw":
            index = faiss.IndexHNSWFlat(samples, self.links, kind)
        index.add(columns)

        def nearest(queries: Floats, each: int) -> Integers:
            if self.kind == "hnsw":
                index.hnsw.efSearch = max(each, 16)
            found: Integers = index.search(queries, each)[1]
            return found

        return nearest


@dataclass(frozen=True)
class _Graph:
    """What the searches through a graph of neighbours share."""

    k_similar: float = 0.15
    links: int = 16
    effort: int = 100

    def __post_init__(self) -> None:
        check_k_similar(self.k_similar)
        _check_positive("links", self.links)
        _check_positive("effort", self.effort)

    @torch.no_grad()
    def __call__(
        self, rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
    ) -> Found:
        query = door(rows, columns, k, exclude, metric)
        return by_neighbours(query, self._nearest(query), self.k_similar)

    def _nearest(self, query: Query) -> Nearest:
        """The index over the query's columns, as a function."""
        raise NotImplementedError


@dataclass(frozen=True)
class Hnswlib(_Graph):
    """Search through a graph of hnswlib (Malkov and Yashunin 2018), built anew at each call.

    Args:
        k_similar: neighbours for each row, as a fraction of the columns in (0, 1].
        links: links of the graph for each column.
        effort: columns looked at while a column is added.

    Raises:
        InputError: a fraction outside (0, 1], a count below 1.
        MissingDependency: on the call, without the extra ``regraft[hnswlib]``.
    """

    def _nearest(self, query: Query) -> Nearest:
        hnswlib = _library("hnswlib", "hnswlib", "hnswlib")
        data, threads = _columns(query), native.get_threads()
        index = hnswlib.Index(space="l2" if query.metric == "l2" else "ip", dim=data.shape[1])
        index.init_index(max_elements=data.shape[0], M=self.links, ef_construction=self.effort, random_seed=1)
        index.add_items(data, num_threads=1)  # in order, so that the graph is the same every time

        def nearest(queries: Floats, each: int) -> Integers:
            # it cannot give fewer than asked for: the graph is walked with some more
            index.set_ef(max(each + 16, 2 * self.links))
            try:
                found = index.knn_query(queries, k=each, num_threads=threads)[0]
            except RuntimeError:  # the graph is in pieces and gave too few: every column is a candidate
                return np.tile(np.arange(data.shape[0], dtype=np.int64), (queries.shape[0], 1))
            return np.asarray(found).astype(np.int64)

        return nearest


@dataclass(frozen=True)
class Nmslib(_Graph):
    """Search through a graph of nmslib (Boytsov and Naidan 2013), built anew at each call (thesis 4).

    Args:
        k_similar: neighbours for each row, as a fraction of the columns in (0, 1].
        links: links of the graph for each column.
        effort: columns looked at while a column is added.

    Raises:
        InputError: a fraction outside (0, 1], a count below 1.
        MissingDependency: on the call, without the extra ``regraft[nmslib]``.
    """

    def _nearest(self, query: Query) -> Nearest:
        nmslib = _library("nmslib", "nmslib", "nmslib")
        threads = native.get_threads()
        index = nmslib.init(method="hnsw", space="l2" if query.metric == "l2" else "negdotprod")
        index.addDataPointBatch(_columns(query))
        index.createIndex({"M": self.links, "efConstruction": self.effort, "indexThreadQty": 1, "post": 0})

        def nearest(queries: Floats, each: int) -> Integers:
            index.setQueryTimeParams({"efSearch": max(each, 2 * self.links)})
            found = np.full((queries.shape[0], each), -1, dtype=np.int64)
            for row, (near, _) in enumerate(index.knnQueryBatch(queries, k=each, num_threads=threads)):
                found[row, : near.shape[0]] = near
            return found

        return nearest
