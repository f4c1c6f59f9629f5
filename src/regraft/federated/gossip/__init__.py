"""No server: each node trains, tells its neighbours, and merges what has arrived."""

from regraft.federated.gossip.links import LINKS, Links, RandomRings, full, ring
from regraft.federated.gossip.merging import merge_arrivals
from regraft.federated.gossip.post import Letter, Post
from regraft.federated.gossip.rounds import Gossip, Gossiped, GossipRound, gossip

__all__ = [
    "LINKS",
    "Gossip",
    "GossipRound",
    "Gossiped",
    "Letter",
    "Links",
    "Post",
    "RandomRings",
    "full",
    "gossip",
    "merge_arrivals",
    "ring",
]
