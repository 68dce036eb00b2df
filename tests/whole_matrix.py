"""Retrieval by whole score matrices, recording by recording in float64: the witness of the way that makes none."""

import numpy as np

from xlt_ray.retrieval.scores import TOLERANCE


def unit(frames):
    wide = frames.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def recall(x, y):
    return (x @ y.T).max(axis=1).mean()


def precision(x, y):
    return recall(y, x)


def f1(x, y):
    r, p = recall(x, y), precision(x, y)
    return 0.0 if r + p <= 0 else 2 * r * p / (r + p)


def dtw(x, y):
    """The recursion as Sakoe and Chiba print it, cell by cell."""
    distance = 1 - x @ y.T
    cost = np.full(distance.shape, np.inf)
    for i, j in np.ndindex(*distance.shape):
        d = distance[i, j]
        ways = [2 * d] if i == j == 0 else []
        ways += [cost[i - 1, j] + d] if i else []
        ways += [cost[i, j - 1] + d] if j else []
        ways += [cost[i - 1, j - 1] + 2 * d] if i and j else []
        cost[i, j] = min(ways)
    return -cost[-1, -1] / (len(x) + len(y))


MODES = {"f1": f1, "mean": lambda x, y: (recall(x, y) + precision(x, y)) / 2, "recall": recall, "precision": precision}
BASELINES = {
    "mean_pool": lambda x, y: cosine(x.mean(axis=0), y.mean(axis=0)),
    "max_pool": lambda x, y: cosine(x.max(axis=0), y.max(axis=0)),
    "dtw": dtw,
}


def matrix(score, queries, candidates):
    """Scores (num_queries, num_candidates) of utterances that are arrays of frames."""
    x, y = ([unit(frames) for frames in part] for part in (queries, candidates))
    return np.array([[score(a, b) for b in y] for a in x])


def drawn(num_queries, num_candidates, seed, direction):
    """The random baseline, all at a time."""
    generator = np.random.default_rng([seed, *map(ord, direction)])
    return generator.random((num_queries, num_candidates), dtype=np.float32)


def ranks(scores, positive, takes_part):
    """Rank of the best hit of each query that has one; the matrix holds only candidates that take part."""
    found = []
    for row, hits, asks in zip(scores, positive, takes_part, strict=True):
        best = max((s for s, hit in zip(row, hits, strict=True) if hit and not np.isnan(s)), default=-np.inf)
        beaten = sum(not s < best - TOLERANCE for s, hit in zip(row, hits, strict=True) if not hit)
        found.append(1 + beaten if asks else None)
    return found


def interval(ranks, sentence_ids, seed, num_resamples=1000):
    """The bootstrap over sentences, all resamples at a time."""
    _, sentence = np.unique(np.array(sentence_ids), return_inverse=True)
    num_hits, num_queries = np.bincount(sentence, weights=ranks == 1), np.bincount(sentence)
    num = len(num_queries)
    draws = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=num_resamples)
    return np.percentile((draws @ num_hits) / (draws @ num_queries), [2.5, 97.5]).tolist()
