"""An integer NeuMF in NumPy: int64 sums of integers, float32 between the scales, one pair at a time."""

import numpy as np

F = np.float32


def activation(x, scale, zero_point, low, high, relu=False):
    """Integers of numbers already divided by their scale."""
    least = max(low, zero_point) if relu else low
    return int(min(max(np.rint(F(x)) + zero_point, least), high))


class IntegerNeuMF:
    """Reads the integers, scales and zero points of a quantized model; shares no computation with it."""

    def __init__(self, model):
        self.config = model.quantization
        self.widths = model.hidden_dims
        self.gmf, self.mlp = model.gmf_width, model.mlp_width
        self.branch, self.split = model.branch, model.split_final
        self.values = {v.path.split("/")[-1]: v.numpy() for v in model.weights}
        bits, wbits = self.config.activations, self.config.weights
        self.limits = {"a": _limits(self.config.mode, bits), "w": _limits(self.config.weight_mode, wbits)}

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


def _limits(mode, bits):
    top = 2 ** (bits - 1)
    return {
        "symmetric": (1 - top, top - 1),
        "asymmetric_unsigned": (0, 2 * top - 1),
        "asymmetric_signed": (-top, top - 1),
    }[mode]
