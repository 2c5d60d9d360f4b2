"""An integer NeuMF in NumPy: int64 sums of integers, float32 between the scales, one pair at a time. Imports nothing
from tfrec."""

import numpy as np

F = np.float32


def activation(x, scale, zero_point, low, high, relu=False):
    """Integers of numbers already divided by their scale."""
    least = max(low, zero_point) if relu else low
    return int(min(max(np.rint(F(x)) + zero_point, least), high))


class IntegerNeuMF:
    """Quantizes by itself: integers, scales and zero points follow from the float weights, the ranges and the settings.

    Args:
        weights: name -> float32 array of a NeuMF, split or not.
        branch: ``neumf``, ``gmf`` or ``mlp``.
        mf_dim: width of the GMF embeddings.
        config: the settings, as attributes.
        ranges: name of an activation -> (low, high).
    """

    def __init__(self, weights, branch, mf_dim, config, ranges):
        self.config, self.branch = config, branch
        self.split = branch != "neumf" or config.split_final
        self.gmf = mf_dim if branch != "mlp" else 0
        self.mlp = weights["user_embedding"].shape[1] - self.gmf
        self.widths = [k.shape[1] for k in (weights.get(f"kernel_{i}") for i in range(1, 9)) if k is not None]
        self.limits = {
            "a": _limits(config.mode, config.activations),
            "w": _limits(config.weight_mode, config.weights),
        }
        self.values = {}
        for side in ("user", "item"):
            table = weights[f"{side}_embedding"]
            for part, own in (("gmf", table[:, : self.gmf]), ("mlp", table[:, self.gmf :])):
                if own.shape[1]:
                    self._quantize(f"{side}_{part}", own, own if config.per_row else own.reshape(1, -1))
        for name, (low, high) in ranges.items():
            self._keep(name, *_affine(low, high, config.mode, config.activations))
        for i in range(1, len(self.widths) + 1):
            kernel, bias = weights[f"kernel_{i}"], weights[f"bias_{i}"]
            self._quantize(f"kernel_{i}", kernel.T, kernel.T if config.per_channel else kernel.reshape(1, -1))
            for name in (f"kernel_{i}", f"kernel_{i}_scale", f"kernel_{i}_zero_point"):
                if name in self.values:
                    self.values[name] = self.values[name].T
            if i > 1:
                scale = (self.scale(f"hidden_{i - 1}") * self.scale(f"kernel_{i}")[0]).astype(np.float64)
                bias = np.clip(np.rint(bias / scale), -(2**30 - 1), 2**30 - 1).astype(np.int64)
            self.values[f"bias_{i}"] = bias
        for name, kernel, bias in _final(weights, branch, self.gmf, self.split):
            self._quantize(f"{name}_kernel", kernel, kernel.reshape(1, -1))
            self.values[f"{name}_bias"] = bias[0]

    def _quantize(self, name, value, groups):
        """A scale for each row of ``groups``: ``value`` itself, or all of it as one row."""
        maps = [_affine(g.min(), g.max(), self.config.weight_mode, self.config.weights) for g in groups]
        scale, zero = (np.array([m[part] for m in maps])[:, None] for part in (0, 1))
        self._keep(name, scale, zero)
        q = np.rint(value / scale).astype(np.int64) + zero
        self.values[name] = np.clip(q, *self.limits["w"])

    def _keep(self, name, scale, zero):
        self.values[f"{name}_scale"] = scale
        if (self.config.weight_mode if np.ndim(scale) else self.config.mode) != "symmetric":
            self.values[f"{name}_zero_point"] = zero

    def weight(self, name, row=None):
        """Integers without zero point, int64, and their scale."""
        values, scale = self.values[name].astype(np.int64), self.values[f"{name}_scale"]
        zero = self.values.get(f"{name}_zero_point", np.zeros(scale.shape, np.int64))
        low, high = self.limits["w"]
        assert values.min() >= low
        assert values.max() <= high
        if row is None:
            return values - zero, scale
        at = row if len(scale) > 1 else 0
        return values[row] - zero[at], scale[at, 0]

    def scale(self, name):
        return self.values[f"{name}_scale"]

    def zero(self, name):
        return int(self.values.get(f"{name}_zero_point", 0))

    def stored(self, x, name):
        low, high = self.limits["a"]
        q = activation(F(x) / self.scale(name), None, self.zero(name), low, high)
        return F(q - self.zero(name)) * self.scale(name), q

    def logit(self, user, item):
        """All integers of a pair, and its logit."""
        low, high = self.limits["a"]
        found = {}
        if self.gmf:
            (p, sp), (q, sq) = self.weight("user_gmf", user), self.weight("item_gmf", item)
            product, pair = p * q, F(sp * sq)
            if self.config.product == "quantized":
                ratio = F(pair / self.scale("product"))
                scaled = product.astype(F) * ratio
                zero = self.zero("product")
                found["product"] = [activation(x, None, zero, low, high) for x in scaled]
        if self.mlp:
            kernel, sk = self.weight("kernel_1")
            (a, sa), (b, sb) = self.weight("user_mlp", user), self.weight("item_mlp", item)
            s1 = self.scale("hidden_1")
            of_user = ((a @ kernel[: self.mlp]).astype(F) * (sa * sk[0]) + self.values["bias_1"]) / s1
            of_item = ((b @ kernel[self.mlp :]).astype(F) * (sb * sk[0])) / s1
            hidden = [activation(x, None, self.zero("hidden_1"), low, high, True) for x in of_user + of_item]
            found["hidden_1"] = hidden
            for i in range(2, len(self.widths) + 1):
                kernel, sk = self.weight(f"kernel_{i}")
                before, name = f"hidden_{i - 1}", f"hidden_{i}"
                total = (np.array(hidden) - self.zero(before)) @ kernel + self.values[f"bias_{i}"]
                multiplier = self.scale(before) * sk[0] / self.scale(name)
                scaled = total.astype(F) * multiplier
                hidden = [activation(x, None, self.zero(name), low, high, True) for x in scaled]
                found[name] = hidden
        last = f"hidden_{len(self.widths)}"
        logits = {}
        if not self.split:
            joint = []
            for name in ("product", last):
                ratio = F(self.scale(name) / self.scale("final_input"))
                centered = np.array(found[name]) - self.zero(name)
                zero = self.zero("final_input")
                joint += [activation(F(c) * ratio, None, zero, low, high) for c in centered]
            found["final_input"] = joint
            logits["final"] = self.last(joint, "final_input", "final")
        else:
            if self.gmf and self.config.product == "exact":
                kernel, sk = self.weight("gmf_kernel")
                logits["gmf"] = F(int(product @ kernel[:, 0])) * F(pair * sk[0, 0])
            elif self.gmf:
                logits["gmf"] = self.last(found["product"], "product", "gmf")
            if self.mlp:
                logits["mlp"] = self.last(hidden, last, "mlp")
        if self.config.final_addition == "float32":
            total = sum(list(logits.values())[1:], next(iter(logits.values())))
            biases = [self.values[f"{n}_bias"] for n in logits]
            found["logit"] = F(total + F(sum(biases[1:], biases[0])))
            return found
        parts = []
        for name, value in logits.items():
            value = F(value + self.values[f"{name}_bias"])
            if name != "final":
                value, found[f"{name}_logit_integer"] = self.stored(value, f"{name}_logit")
            parts.append(value)
        total = sum(parts[1:], parts[0])
        if self.branch == "neumf":
            total, found["logit_integer"] = self.stored(total, "logit")
        found["logit"] = F(total)
        return found

    def last(self, q, activation_name, name):
        kernel, sk = self.weight(f"{name}_kernel")
        total = (np.array(q) - self.zero(activation_name)) @ kernel[:, 0]
        return F(int(total)) * F(self.scale(activation_name) * sk[0, 0])


def _final(weights, branch, gmf, split):
    """Name, kernel and bias of each output layer."""
    if branch != "neumf":
        name = branch if f"{branch}_kernel" in weights else "final"
        return [(branch, weights[f"{name}_kernel"], weights[f"{name}_bias"])]
    if "final_kernel" in weights:
        kernel, bias = weights["final_kernel"], weights["final_bias"]
    else:
        kernel = np.concatenate([weights["gmf_kernel"], weights["mlp_kernel"]])
        bias = weights["gmf_bias"] + weights["mlp_bias"]
    return [("gmf", kernel[:gmf], bias / 2), ("mlp", kernel[gmf:], bias / 2)] if split else [("final", kernel, bias)]


def _affine(low, high, mode, bits):
    """Scale and zero point of a range, widened to hold 0."""
    least, greatest = _limits(mode, bits)
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = max(-low, high) / greatest if mode == "symmetric" else (high - low) / (greatest - least)
    scale = scale if F(scale) > np.finfo(F).tiny else 1.0
    zero = 0 if mode == "symmetric" else int(np.clip(np.rint(least - low / scale), least, greatest))
    return F(scale), zero


def _limits(mode, bits):
    top = 2 ** (bits - 1)
    return {
        "symmetric": (1 - top, top - 1),
        "asymmetric_unsigned": (0, 2 * top - 1),
        "asymmetric_signed": (-top, top - 1),
    }[mode]
