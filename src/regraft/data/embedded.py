"""The classification sets that scikit-learn ships: they need no file and no network."""

from __future__ import annotations

from regraft.data.raw import RawData, RawSplit

LOADERS = {
    "digits": "load_digits",
    "breast-cancer": "load_breast_cancer",
    "iris": "load_iris",
    "wine": "load_wine",
}


def read_embedded(name: str) -> RawData:
    """digits (1797 x 8 x 8, values 0 to 16, 10 classes), breast-cancer (569 x 30, 2), iris (150 x 4, 3)
    or wine (178 x 13, 3). A quarter is for testing by default, as in scikit-learn's ``train_test_split``.

    >>> read_embedded("iris").class_names
    ('setosa', 'versicolor', 'virginica')
    """
    from sklearn import datasets

    held = getattr(datasets, LOADERS[name])()
    digits = name == "digits"
    x = held.images[:, None] if digits else held.data
    names = tuple(str(n) for n in held.target_names)
    split = RawSplit(x, held.target.astype("int64"), f"scikit-learn's {name}")
    return RawData(name, split, None, names, images=digits, top=16.0 if digits else None, test_fraction=0.25)
