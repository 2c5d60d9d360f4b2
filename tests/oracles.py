"""Slow, plain float64 NumPy versions of what tfrec computes. Imports nothing from tfrec."""

import itertools

import numpy as np


def metric_of_order(order, relevant, k, name, num_candidates=None):
    """A metric of one ranking without ties: ``order`` lists items best first, ``relevant`` is a set."""
    ranks = [place for place, item in enumerate(order, start=1) if item in relevant]
    within = [r for r in ranks if r <= k]
    n = len(relevant)
    if name == "recall":
        return len(within) / min(k, n)
    if name == "recall_relevant":
        return len(within) / n
    if name == "precision":
        return len(within) / k
    if name == "hit_rate":
        return float(len(within) > 0)
    if name == "ndcg":
        ideal = sum(1 / np.log2(r + 1) for r in range(1, min(k, n) + 1))
        return sum(1 / np.log2(r + 1) for r in within) / ideal
    if name == "map":
        return sum((hit + 1) / r for hit, r in enumerate(within)) / min(k, n)
    if name == "mrr":
        return 1 / within[0] if within else 0.0
    if name == "auc":
        others = len(order) - n
        below = sum((len(order) - r) - (n - 1 - i) for i, r in enumerate(ranks))
        return below / (n * others)
    raise ValueError(name)


def orders_of(scores, candidates):
    """All rankings that tied scores allow."""
    levels = sorted({scores[i] for i in candidates}, reverse=True)
    groups = [[i for i in candidates if scores[i] == level] for level in levels]
    for parts in itertools.product(*(itertools.permutations(g) for g in groups)):
        yield [i for part in parts for i in part]


def metric(scores, relevant, seen, k, name, ties="expected"):
    """A metric over all rankings that ties allow: their mean, or the one where targets come last or first."""
    candidates = [i for i in range(len(scores)) if i not in seen]
    if ties == "expected":
        return np.mean([metric_of_order(o, relevant, k, name) for o in orders_of(scores, candidates)])
    last = ties == "pessimistic"
    order = sorted(candidates, key=lambda i: (-scores[i], (i in relevant) == last))
    return metric_of_order(order, relevant, k, name)


def catalogue_metric(scores, seen, k, name, popularity=None, num_users=None):
    """A metric of what all users are shown, user by user and place by place; equal scores by lower number first."""
    num_items = len(scores[0])
    places = []
    for u, row in enumerate(scores):
        left = [i for i in range(num_items) if i not in seen[u]]
        places += sorted(left, key=lambda i: (-row[i], i))[:k]
    if name == "coverage":
        return len(set(places)) / num_items
    if name == "novelty":
        return sum(-np.log2(max(popularity[i], 1) / num_users) for i in places) / len(places)
    if name == "gini":
        # As the mean difference between any two items, over twice the mean, and scaled so that 1 can be reached.
        counts = [places.count(i) for i in range(num_items)]
        differences = sum(abs(a - b) for a in counts for b in counts) / num_items**2
        return differences / (2 * np.mean(counts)) * num_items / (num_items - 1)
    raise ValueError(name)


def liang_split(
    user, item, value, heldout, min_rating=3.5, min_user_events=5, min_item_events=0, share=0.2, seed=98765
):
    """The steps of Liang et al.'s published notebook, on raw ids, written with Python lists and dicts.

    Returns (unique users in permuted order, items in order of first appearance, and per part a list of
    (user, item) pairs for train, validation in, validation out, test in, test out).
    """
    events = [(u, i) for u, i, v in zip(user, item, value, strict=True) if v > min_rating]
    count = {}
    for _, i in events:
        count[i] = count.get(i, 0) + 1
    events = [(u, i) for u, i in events if count[i] >= min_item_events]
    count = {}
    for u, _ in events:
        count[u] = count.get(u, 0) + 1
    events = [(u, i) for u, i in events if count[u] >= min_user_events]
    users = sorted({u for u, _ in events})
    np.random.seed(seed)
    users = [users[p] for p in np.random.permutation(len(users))]
    n = len(users)
    train_users = set(users[: n - 2 * heldout])
    train = [(u, i) for u, i in events if u in train_users]
    items = list(dict.fromkeys(i for _, i in train))
    parts = [train]
    for part in (users[n - 2 * heldout : n - heldout], users[n - heldout :]):
        members, known = set(part), set(items)
        groups = {}
        for u, i in events:
            if u in members and i in known:
                groups.setdefault(u, []).append((u, i))
        np.random.seed(seed)
        given, asked = [], []
        for u in sorted(groups):
            group = groups[u]
            chosen = np.zeros(len(group), bool)
            if len(group) >= 5:
                chosen[np.random.choice(len(group), size=int(share * len(group)), replace=False)] = True
            given += [e for e, c in zip(group, chosen, strict=True) if not c]
            asked += [e for e, c in zip(group, chosen, strict=True) if c]
        parts += [given, asked]
    return users, items, parts


def multinomial_nll(hidden, kernel, bias, target):
    """-sum of x log softmax(h W + c), and its gradients for h, W and c."""
    logits = hidden.astype(np.float64) @ kernel + bias
    logits -= logits.max(axis=1, keepdims=True)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    g = np.exp(log_softmax) * target.sum(axis=1, keepdims=True) - target
    return -(target * log_softmax).sum(), g @ kernel.T, hidden.T @ g, g.sum(axis=0)


def adam(weight, gradients, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma and Ba's Adam with the bias corrections folded into the step size (their section 2, last paragraph)."""
    weight, m, v = weight.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        g = g.astype(np.float64)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        step = learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        weight = weight - step * m / (np.sqrt(v) + epsilon)
    return weight


def neumf(weights, users, items, labels, l2=0.0, mlp_l2=None):
    """NeuMF pair by pair: logits ``[P, C]``, the mean loss, and the loss's gradient for each weight, by hand.

    ``weights``: ``user``, ``item`` (GMF part first), ``kernels``, ``biases``, ``final`` ``[M + D]``, ``bias``; the GMF
    width is ``len(final) - width of the last layer``.
    """
    kernels, biases = weights["kernels"], weights["biases"]
    mf = len(weights["final"]) - (len(biases[-1]) if biases else 0)
    strength = np.full(weights["user"].shape[1], l2 if mlp_l2 is None else mlp_l2)
    strength[:mf] = l2
    gradient = {
        "user": np.zeros_like(weights["user"]),
        "item": np.zeros_like(weights["item"]),
        "kernels": [np.zeros_like(k) for k in kernels],
        "biases": [np.zeros_like(b) for b in biases],
        "final": np.zeros_like(weights["final"]),
        "bias": 0.0,
    }
    logits, loss, count = np.zeros(items.shape), 0.0, items.size
    for p, user in enumerate(users):
        for c, item in enumerate(items[p]):
            eu, ei = weights["user"][user], weights["item"][item]
            layers = [np.concatenate([eu[mf:], ei[mf:]])]
            for kernel, bias in zip(kernels, biases, strict=True):
                layers.append(np.maximum(layers[-1] @ kernel + bias, 0))
            product = eu[:mf] * ei[:mf]
            last = np.concatenate([product, layers[-1] if kernels else []])
            logit = logits[p, c] = last @ weights["final"] + weights["bias"]
            y = labels[p, c]
            loss += np.logaddexp(0, logit) - y * logit + strength / 2 @ (eu**2 + ei**2)
            up = (1 / (1 + np.exp(-logit)) - y) / count
            gradient["final"] += up * last
            gradient["bias"] += up
            back = up * weights["final"]
            du, di = strength / count * eu, strength / count * ei
            du[:mf] += back[:mf] * ei[:mf]
            di[:mf] += back[:mf] * eu[:mf]
            if kernels:
                g = back[mf:]
                for k in range(len(kernels) - 1, -1, -1):
                    g = g * (layers[k + 1] > 0)
                    gradient["kernels"][k] += np.outer(layers[k], g)
                    gradient["biases"][k] += g
                    g = kernels[k] @ g
                half = len(g) // 2
                du[mf:] += g[:half]
                di[mf:] += g[half:]
            gradient["user"][user] += du
            gradient["item"][item] += di
    return logits, loss / count, gradient


def als_rows(offsets, columns, values, fixed, alpha, regularization, unobserved_weight, frequency_exponent):
    """Each row's minimiser of the weighted squares, by one dense solve per row."""
    fixed = np.asarray(fixed, np.float64)
    num_fixed, factors = fixed.shape
    gram = fixed.T @ fixed
    rows = np.zeros((len(offsets) - 1, factors))
    for u in range(len(rows)):
        v = np.asarray(values[offsets[u] : offsets[u + 1]], np.float64)
        y = fixed[columns[offsets[u] : offsets[u + 1]]]
        if len(v) == 0:
            continue
        confidence = alpha * np.abs(v)
        penalty = regularization * (len(v) + unobserved_weight * num_fixed) ** frequency_exponent
        a = unobserved_weight * (gram - y.T @ y) + y.T @ (confidence[:, None] * y) + penalty * np.eye(factors)
        rows[u] = np.linalg.solve(a, y.T @ (confidence * (v > 0)))
    return rows


def als_loss(matrix, users, items, alpha, regularization, unobserved_weight, frequency_exponent):
    """The objective over all pairs, dense, per unit of weight."""
    dense = matrix.toarray().astype(np.float64)
    stored = np.zeros(dense.shape, bool)
    stored[np.repeat(np.arange(dense.shape[0]), np.diff(matrix.indptr)), matrix.indices] = True
    users, items = np.asarray(users, np.float64), np.asarray(items, np.float64)
    weight = np.where(stored, alpha * np.abs(dense), unobserved_weight)
    total = (weight * ((dense > 0) - users @ items.T) ** 2).sum()
    for table, count, others in (
        (users, stored.sum(1), dense.shape[1]),
        (items, stored.sum(0), dense.shape[0]),
    ):
        penalty = regularization * (count + unobserved_weight * others) ** frequency_exponent
        total += (penalty * (table**2).sum(1)).sum()
    return total / weight.sum()


def ease_weights(matrix, regularization):
    """Steck (2019), equation 8: ``B_ij = -P_ij / P_jj`` with ``P = (X'X + lambda I)^-1``, and zeros on the diagonal."""
    gram = (matrix.T @ matrix).toarray().astype(np.float64)
    inverse = np.linalg.inv(gram + regularization * np.eye(len(gram)))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def top_k(queries, items, k, excluded):
    """Best items of each query, equal scores by lower number; excluded ones are absent."""
    scores = np.asarray(queries, np.float64) @ np.asarray(items, np.float64).T
    found = []
    for q, row in enumerate(scores):
        left = [i for i in range(len(row)) if i not in set(excluded[q])]
        found.append(sorted(left, key=lambda i: (-row[i], i))[:k])
    return found


def int8_score(user_terms, item_terms, user_index, item_index, first, layers, final_kernel, final_scale, gmf, bias):
    """Logits of a quantized NeuMF, pair by pair: sums in int64, each step with real numbers rounded to float32."""

    def activation(values, zero_point, low, high):
        assert values.dtype == np.float32
        rounded = np.where(np.isnan(values), -np.inf, np.rint(values).astype(np.float64))
        return np.clip(rounded + zero_point, low, high).astype(np.int64)

    logits = np.zeros(item_index.shape, np.float32)
    for (p, c), i in np.ndenumerate(item_index):
        u = user_index[p]
        parts = []
        if gmf is not None:
            user, item, user_scale, item_scale, kernel, kernel_scale = gmf
            total = sum(int(a) * int(b) * int(w) for a, b, w in zip(user[u], item[i], kernel, strict=True))
            parts.append(np.float32(total) * ((user_scale[u] * item_scale[i]) * np.float32(kernel_scale)))
        if user_terms is not None:
            hidden = activation(user_terms[u] + item_terms[i], *first)
            for weights, offset, multiplier, *bounds in layers:
                total = hidden @ weights.astype(np.int64) + offset.astype(np.int64)
                hidden = activation(total.astype(np.float32) * multiplier, *bounds)
            total = hidden @ final_kernel[0].astype(np.int64) + np.int64(final_kernel[1])
            parts.append(total.astype(np.float32) * np.float32(final_scale))
        logits[p, c] = (parts[0] + parts[1] if len(parts) == 2 else parts[0]) + np.float32(bias)
    return logits


def tt_table(cores, num_rows):
    """The dense ``[num_rows, D]`` of cores ``[p, r, q, r']``, element by element of the row's digits."""
    table = np.ones((1, 1, 1))
    for core in cores:
        core = np.asarray(core, np.float64)
        # rows: every old one with every slice, the old digits the more significant
        table = np.einsum("nqr,prst->npqst", table, core)
        table = table.reshape(table.shape[0] * core.shape[0], -1, core.shape[3])
    return table[:num_rows, :, 0]


def tt_gradients(cores, ids, upstream):
    """The gradient of sum(upstream * rows) for each core, id by id, from the products left and right of each core."""
    cores = [np.asarray(c, np.float64) for c in cores]
    gradients = [np.zeros(c.shape) for c in cores]
    factors = [c.shape[0] for c in cores]
    columns = [c.shape[2] for c in cores]
    for id_, up in zip(ids, np.asarray(upstream, np.float64), strict=True):
        digits, left = [], int(id_)
        for p in reversed(factors):
            digits.insert(0, left % p)
            left //= p
        slices = [c[i] for c, i in zip(cores, digits, strict=True)]
        for k in range(len(slices)):
            before, after = np.ones((1, 1)), np.ones((1, 1))
            for s in slices[:k]:
                before = np.einsum("ar,rqs->aqs", before, s).reshape(-1, s.shape[2])
            for s in reversed(slices[k + 1 :]):
                after = np.einsum("rqs,sb->rqb", s, after).reshape(s.shape[0], -1)
            shaped = up.reshape(before.shape[0], columns[k], after.shape[1])
            gradients[k][digits[k]] += np.einsum("aqb,ar,sb->rqs", shaped, before, after)
    return gradients


def int8_top_k(queries, query_scales, items, item_scales, k, excluded):
    """Of each query (its best items, their scores), equal scores by lower number; the products in int64."""
    products = np.asarray(queries, np.int64) @ np.asarray(items, np.int64).T
    scores = products.astype(np.float32) * (np.float32(query_scales)[:, None] * np.float32(item_scales)[None])
    found = []
    for q, row in enumerate(scores):
        left = [i for i in range(len(row)) if i not in set(excluded[q]) and row[i] > -np.inf]
        best = sorted(left, key=lambda i: (-row[i], i))[:k]
        found.append((best, row[best]))
    return found


def ndcg_of_ranking(scores, gains, k, ties):
    """NDCG@k with gains of one user by going through every order of equal scores."""
    import itertools

    items = range(len(scores))
    orders = [
        order
        for order in itertools.permutations(items)
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    discounts = [1 / np.log2(place + 2) for place in range(k)]
    best = sum(g * d for g, d in zip(sorted(gains, reverse=True), discounts, strict=False))
    values = [sum(gains[item] * d for item, d in zip(order, discounts, strict=False)) / best for order in orders]
    return {"expected": np.mean, "pessimistic": min, "optimistic": max}[ties](values)


def sign_flip_p(differences):
    """The share of all choices of signs whose sum is as far from 0, gone through one by one."""
    found = abs(sum(differences))
    reached = 0
    for signs in itertools.product((1, -1), repeat=len(differences)):
        reached += abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= found - 1e-9
    return reached / 2 ** len(differences)


def bootstrap_means(differences):
    """The means of all resamples with replacement, each of the same probability, sorted."""
    return np.sort([np.mean(chosen) for chosen in itertools.product(differences, repeat=len(differences))])


def holm(p_values):
    """Holm's step-down procedure, as: the lowest level at which the i-th test would be rejected."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected
