"""ML-Decoder: label queries that attend to the feature map (Ridnik et al., arXiv 2111.12933)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class MLDecoder(nn.Module):
    """Logits from features (b, n, c), without pooling them.

    Fixed random queries, each for a group of labels of one head, attend once to all places; a
    group's answer is then spread on its labels by a linear layer of its own. Queries do not attend
    to each other, so that the cost grows linearly with their number.

    Args:
        features: c.
        sizes: number of labels of each head.
        width: of queries and answers, a multiple of 8.
        groups: most queries a head gets; with fewer labels each has its own.
        dropout: inside the decoder.
    """

    def __init__(
        self, features: int, sizes: Sequence[int], width: int, groups: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        each = [-(-size // groups) for size in sizes]  # labels a query
        self.queries = [-(-size // k) for size, k in zip(sizes, each)]
        self.embed = nn.Linear(features, width)
        self.register_buffer("query", torch.randn(sum(self.queries), width))
        self.attention = nn.MultiheadAttention(width, 8, dropout, batch_first=True)
        hidden = 8 * width // 3  # 2048 at the paper's width 768
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.spread = nn.ParameterList(
            nn.init.normal_(torch.empty(n, width, k), std=0.02) for n, k in zip(self.queries, each)
        )
        self.bias = nn.Parameter(torch.zeros(sum(sizes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, c) → (b, Σ sizes)."""
        memory = self.embed(x).relu()
        query = self.query.expand(len(x), -1, -1)
        query = self.norms[0](query + self.dropout(query))
        answer, _ = self.attention(query, memory, memory, need_weights=False)
        answer = self.norms[1](query + self.dropout(answer))
        inner = self.dropout(F.relu(self.inner(answer)))
        answer = self.norms[2](answer + self.dropout(self.outer(inner)))
        parts = zip(answer.split(self.queries, 1), self.spread, self.sizes)
        logits = [torch.einsum("bqd,qdk->bqk", a, w).flatten(1)[:, :n] for a, w, n in parts]
        return torch.cat(logits, 1) + self.bias
