# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Ways to count classes, behind one interface: a case goes in, a number comes out.

All work on features that are standardised and scaled to norm 1, but for the labelled-accuracy search, which needs
regions and base regions on one scale. Candidates reach from 2 to 16, but never beyond a quarter of the regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from class_count_data import Case
from networkx import from_scipy_sparse_array
from networkx.algorithms.community import louvain_communities
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler, normalize

from anomalib_ncd.models.clustering.number_of_classes import estimate_num_classes

Method = Callable[[Case], int]
MAX_CLASSES = 16


def rows_of(case: Case) -> np.ndarray:
    """Features, standardised and scaled to norm 1."""
    return normalize(StandardScaler().fit_transform(np.asarray(case.features, np.float64)))


def candidates(num_regions: int) -> range:
    """Numbers of classes to try."""
    return range(2, max(3, min(MAX_CLASSES, num_regions // 4)) + 1)


def best(counts: Sequence[int], scores: Sequence[float]) -> int:
    """Candidate with the highest score."""
    return int(counts[int(np.argmax(scores))])


def ward_labels(rows: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Ward's clusters, one tree cut for each number."""
    tree = linkage(rows, "ward")
    return [fcluster(tree, count, "maxclust") - 1 for count in counts]


def silhouette_ward(case: Case) -> int:
    """Mean silhouette of Ward's clusters (Rousseeuw, 1987)."""
    rows, counts = rows_of(case), candidates(len(case.labels))
    return best(counts, [silhouette_score(rows, labels) for labels in ward_labels(rows, counts)])


def prototype_score(case: Case) -> int:
    """How much nearer regions are to their own prototype, the mean direction of a cluster, than to the next one."""
    rows, counts = rows_of(case), candidates(len(case.labels))
    scores = []
    for labels in ward_labels(rows, counts):
        prototypes = normalize(np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)]))
        distance = np.sort(1 - rows @ prototypes.T, axis=1)
        scores.append(float(np.mean(1 - distance[:, 0] / np.maximum(distance[:, 1], 1e-9))))
    return best(counts, scores)


def stability(case: Case, num_pairs: int = 8) -> int:
    """Agreement (ARI) of Ward's clusters of two random samples of 80 % on the regions that are in both."""
    rows, counts, rng = rows_of(case), candidates(len(case.labels)), np.random.default_rng(0)
    scores = np.zeros(len(counts))
    for _ in range(num_pairs):
        found = np.full((2, len(counts), len(rows)), -1)
        for half in found:
            sample = rng.choice(len(rows), int(0.8 * len(rows)), replace=False)
            half[:, sample] = ward_labels(rows[sample], counts)
        shared = (found >= 0).all(axis=(0, 1))
        scores += [adjusted_rand_score(one[shared], two[shared]) for one, two in zip(*found, strict=True)]
    return best(counts, scores.tolist())


def gap_statistic(case: Case, num_references: int = 5) -> int:
    """Spread inside Ward's clusters against that of uniform rows in the same box (Tibshirani et al., 2001)."""
    rows, rng = rows_of(case), np.random.default_rng(0)
    counts = range(1, candidates(len(rows))[-1] + 1)

    def log_spread(points: np.ndarray) -> np.ndarray:
        spread = [
            sum(((points[labels == label] - points[labels == label].mean(axis=0)) ** 2).sum() for label in set(labels))
            for labels in ward_labels(points, counts)
        ]
        return np.log(spread)

    low, high = rows.min(axis=0), rows.max(axis=0)
    references = np.stack([log_spread(rng.uniform(low, high, rows.shape)) for _ in range(num_references)])
    gap = references.mean(axis=0) - log_spread(rows)
    error = references.std(axis=0) * np.sqrt(1 + 1 / num_references)
    stops = np.flatnonzero(gap[:-1] >= gap[1:] - error[1:])
    return max(2, int(counts[stops[0]]) if len(stops) else counts[-1])


def eigengap(case: Case, num_neighbours: int = 10) -> int:
    """Largest gap among the smallest eigenvalues of the neighbour graph's Laplacian (von Luxburg, 2007)."""
    rows, counts = rows_of(case), candidates(len(case.labels))
    graph = kneighbors_graph(rows, min(num_neighbours, len(rows) - 1)).toarray()
    graph = np.maximum(graph, graph.T)
    root = np.sqrt(graph.sum(axis=1))
    values = np.linalg.eigvalsh(np.eye(len(rows)) - graph / root[:, None] / root)
    return best(counts, [values[count] - values[count - 1] for count in counts])


def modularity(case: Case, num_neighbours: int = 10) -> int:
    """Louvain communities of the neighbour graph (Blondel et al., 2008) that hold a sixtieth of the regions."""
    rows = rows_of(case)
    graph = kneighbors_graph(rows, min(num_neighbours, len(rows) - 1))
    communities = louvain_communities(from_scipy_sparse_array(graph + graph.T), seed=0)
    return max(2, sum(len(members) >= max(3, len(rows) / 60) for members in communities))


def gaussian_mixture(case: Case) -> int:
    """Diagonal Gaussian mixture with the least Bayesian information criterion (Schwarz, 1978)."""
    rows, counts = rows_of(case), candidates(len(case.labels))
    models = [GaussianMixture(count, covariance_type="diag", reg_covar=1e-4, random_state=0) for count in counts]
    return best(counts, [-model.fit(rows).bic(rows) for model in models])


def density(case: Case) -> int:
    """HDBSCAN's clusters (Campello et al., 2013) of at least 0.4 times the root of the number of regions."""
    rows = rows_of(case)
    labels = HDBSCAN(min_cluster_size=max(3, round(0.4 * len(rows) ** 0.5)), copy=True).fit_predict(rows)
    return max(1, int(labels.max()) + 1)


def over_cluster_and_merge(case: Case, separation: float = 6.0) -> int:
    """Ward's tree from the top: a node is cut while its children lie apart on the line between their means.

    Apart means that the means differ by `separation` standard deviations along that line.
    """
    rows = rows_of(case)
    tree, least = linkage(rows, "ward"), max(3.0, len(rows) / 60)
    members: list[list[int]] = [[index] for index in range(len(rows))]
    children = tree[:, :2].astype(int)
    for left, right in children:
        members.append(members[left] + members[right])
    leaves, open_nodes = 0, [len(members) - 1]
    while open_nodes:
        node = open_nodes.pop()
        if len(members[node]) < 2 * least:
            leaves += 1
            continue
        small, large = sorted(children[node - len(rows)], key=lambda child: len(members[child]))
        if len(members[small]) < least:
            open_nodes.append(large)  # a few odd regions are no class
        elif _separation(rows[members[small]], rows[members[large]]) > separation:
            open_nodes += [small, large]
        else:
            leaves += 1
    return leaves


def _separation(one: np.ndarray, other: np.ndarray) -> float:
    """Distance of two means in standard deviations along the line between them."""
    direction = normalize((one.mean(axis=0) - other.mean(axis=0))[None])[0]
    first, second = one @ direction, other @ direction
    variance = (first.var() * len(first) + second.var() * len(second)) / (len(first) + len(second))
    return float((first.mean() - second.mean()) / np.sqrt(variance + 1e-12))


def labelled_accuracy(case: Case) -> int:
    """The search of GCD (Vaze et al., CVPR 2022): the number whose clusters match labelled base regions best."""
    counts = candidates(len(case.labels))
    classes, target = np.unique(case.base_labels, return_inverse=True)
    if len(classes) < 2:
        return 2
    tree = linkage(normalize(np.concatenate([case.base_features, case.features]).astype(np.float64)), "ward")
    scores = []
    for count in counts:
        labels = fcluster(tree, count + len(classes), "maxclust")[: len(target)]
        table = np.zeros((len(classes), labels.max() + 1))
        np.add.at(table, (target, labels), 1)
        scores.append(float(table[linear_sum_assignment(-table)].sum()))
    return best(counts, scores)


def always(count: int) -> Method:
    """No estimate at all, for comparison."""
    return lambda _: count


def chosen(case: Case) -> int:
    """What the package does."""
    return estimate_num_classes(case.features).count


METHODS: dict[str, Method] = {
    "chosen": chosen,
    "density (HDBSCAN)": density,
    "modularity": modularity,
    "silhouette, Ward": silhouette_ward,
    "Gaussian mixture, BIC": gaussian_mixture,
    "eigengap": eigengap,
    "stability": stability,
    "prototype score": prototype_score,
    "over-cluster and merge": over_cluster_and_merge,
    "gap statistic": gap_statistic,
    "labelled accuracy (GCD)": labelled_accuracy,
    "always 5": always(5),
}
