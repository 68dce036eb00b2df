"""Mining by whole score matrices, pair by pair in float64: the witness of the way that makes none."""

import itertools

import numpy as np


def best(scores, k):
    """Places of the k highest of a row, equals in their order; of fewer where there are fewer. NaN finds nobody."""
    there = [place for place in range(len(scores)) if not np.isnan(scores[place])]
    return sorted(there, key=lambda place: (-scores[place], place))[:k]


def neighbours(matrix, k):
    """Who is near to each row, and to each column."""
    return [best(row, k) for row in matrix], [best(column, k) for column in matrix.T]


def pairs(matrix, k):
    """(i, j): score, ratio, distance, who found whom, where one is among the k nearest of the other."""
    there, back = neighbours(matrix, k)
    found = {}
    for i, j in itertools.product(range(len(there)), range(len(back))):
        ways = [name for name, is_near in (("forward", j in there[i]), ("backward", i in back[j])) if is_near]
        if ways:
            mean_i = np.mean([matrix[i, other] for other in there[i]])
            mean_j = np.mean([matrix[other, j] for other in back[j]])
            expected = (mean_i + mean_j) / 2
            score = matrix[i, j]
            ratio = score / expected if expected > 0 else None
            found[i, j] = (score, ratio, score - expected, ways[0] if len(ways) == 1 else "both")
    return found


def margin_of(pair, kind):
    return pair[{"absolute": 0, "ratio": 1, "distance": 2}[kind]]


def chosen(found, kind, one_to_one, threshold, top_n):
    """The pairs that are taken, highest margin first."""
    margins = {key: margin_of(pair, kind) for key, pair in found.items()}
    kept = []
    for key in sorted((key for key in margins if margins[key] is not None), key=lambda key: (-margins[key], key)):
        if threshold is not None and margins[key] < threshold:
            continue
        if one_to_one and any(key[0] == other[0] or key[1] == other[1] for other in kept):
            continue
        kept.append(key)
    return kept[:top_n]


def figures(kept, sentences, shared):
    """Precision, recall and F1 of the pairs that are taken."""
    right = [(i, j) for i, j in kept if sentences[0][i] == sentences[1][j]]
    precision = len(right) / len(kept) if kept else 0.0
    recall = len({sentences[0][i] for i, _ in right}) / len(shared)
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0
