"""Networks of forward-backward representations: sizes, the formulas in NumPy, broadcasting, dropout, their start."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.networks import denoisers, feedforward, parameter_count, successor, value_network
from jaxrl_reg.types import Spec

PAPER_SPEC, PAPER_FEATURES = Spec(24, 6), 50  # walker
SPEC, D, LIMIT = Spec(3, 2), 5, 8
RNG = np.random.default_rng(0)
S, A, Z = (RNG.normal(size=(4, n)).astype(np.float32) for n in (3, 2, D))
SMALL = {
    "forward_mlp": successor.forward_mlp(SPEC, D, limit=LIMIT),
    "forward_direct": successor.forward_mlp(SPEC, D, preprocessor=(), limit=LIMIT),
    "forward_attention": successor.forward_attention(SPEC, D, limit=LIMIT, dropout=0.5),
    "backward_mlp": successor.backward_mlp(SPEC, D, limit=LIMIT),
    "backward_transformer": successor.backward_transformer(SPEC, D, limit=LIMIT, dropout=0.5),
    "task_actor": successor.task_actor(SPEC, D, limit=LIMIT),
}
INPUTS = {"forward_mlp": (S, A, Z), "forward_direct": (S, A, Z), "forward_attention": (S, A, Z), "task_actor": (S, Z)}


def count(network):
    return parameter_count(jax.eval_shape(network.init, jax.random.key(0)))


@pytest.fixture(scope="module")
def params():
    """Parameters away from their start, so that no bias and no gain is a bystander."""
    return jax.tree.map(lambda leaf: leaf + 0.3 * RNG.normal(size=leaf.shape).astype(np.float32), made())


@functools.cache
def made():
    return jax.jit(lambda key: {name: network.init(key) for name, network in SMALL.items()})(jax.random.key(0))


def test_default_sizes_are_the_papers():
    forward = count(successor.forward_mlp(PAPER_SPEC, PAPER_FEATURES))
    backward = count(successor.backward_mlp(PAPER_SPEC, PAPER_FEATURES))
    assert 2 * (forward + backward) == 8_191_788  # FB, online and target
    assert count(successor.task_actor(PAPER_SPEC, PAPER_FEATURES)) == 5_362_694
    attention = count(successor.forward_attention(PAPER_SPEC, PAPER_FEATURES))
    transformer = count(successor.backward_transformer(PAPER_SPEC, PAPER_FEATURES))
    idle = 6 * 2 * (256 * 256 + 256)  # queries and keys of two encoder and two decoder layers
    attention += 2 * 512  # biases of the keys of two blocks, idle as well
    assert attention == 9_588_324
    assert transformer + idle == 5_808_178
    assert 2 * (attention + transformer + idle) == 30_793_004
    value = value_network(
        Spec(24 + PAPER_FEATURES, 6), (512, 512), layer_norm="first_tanh", init="orthogonal", gain=1.0
    )
    assert count(value) == 302_593
    policy = denoisers.denoiser_resnet(PAPER_SPEC, 1024, film_width=PAPER_FEATURES, film="multiplicative")
    assert 2 * count(policy) == pytest.approx(53.3e6, rel=2e-3)


def test_a_limit_caps_every_width():
    for name, network in SMALL.items():
        for leaf in jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0))):
            assert max(leaf.shape[-2:]) <= 4 * LIMIT, name
    wide = successor.forward_attention(PAPER_SPEC, PAPER_FEATURES, limit=1 << 20)
    assert count(wide) == count(successor.forward_attention(PAPER_SPEC, PAPER_FEATURES))


# The formulas once more, in NumPy. ``p`` are parameters of one module, layers numbered in order of use.


def dense(p, x, i):
    return x @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"].get("bias", 0.0)


def norm(p, x, i):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    return scaled * p[f"LayerNorm_{i}"]["scale"] + p[f"LayerNorm_{i}"]["bias"]


def perceptron(p, x, layers, first_tanh=True, end=lambda y: y, hidden=lambda y: np.maximum(y, 0)):
    for i in range(layers - 1):
        x = dense(p, x, i)
        x = np.tanh(norm(p, x, 0)) if first_tanh and i == 0 else hidden(x)
    return end(dense(p, x, layers - 1))


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def side(*inputs):
    return np.concatenate(inputs, axis=-1)


def member(p, j):
    return jax.tree.map(lambda leaf: leaf[j], p)


def numpy_forward_mlp(p):
    acted = perceptron(p["action"], side(S, A), 3, end=relu)
    asked = perceptron(p["task"], side(S, Z), 3, end=relu)
    return np.stack([perceptron(member(p["heads"], j), side(acted, asked), 3) for j in range(2)])


def numpy_forward_direct(p):
    return np.stack([perceptron(member(p, j), side(S, A, Z), 3) for j in range(2)])


def numpy_task_actor(p):
    seen, asked = perceptron(p["state"], S, 3, end=relu), perceptron(p["task"], side(S, Z), 3, end=relu)
    return perceptron(p["body"], side(seen, asked), 3, end=np.tanh)


def numpy_forward_attention(p):
    acted = perceptron(p["action"], side(S, A), 3, first_tanh=False, end=relu)
    asked = perceptron(p["task"], side(S, Z), 3, first_tanh=False, end=relu)
    out, trunk = [], p["trunk"]
    for tokens in np.stack([asked, acted], axis=1):  # [2, W], one example after the other
        for block in range(2):
            query, key, value = (dense(trunk, tokens, 5 * block + i) for i in range(3))
            attended = softmax(query @ key.T / math.sqrt(LIMIT)) @ value
            h = norm(trunk, attended, 2 * block)
            h = h / np.sqrt(np.square(h).mean(-1, keepdims=True) + 1e-6) * trunk[f"RMSNorm_{block}"]["scale"]
            h = dense(trunk, gelu(dense(trunk, h, 5 * block + 3)), 5 * block + 4)
            tokens = norm(trunk, attended + h, 2 * block + 1)
        heads = [member(p["heads"], j) for j in range(2)]
        out.append([tokens.reshape(-1) @ h["Dense_0"]["kernel"] @ h["Dense_1"]["kernel"]
                    + h["Dense_0"]["bias"] @ h["Dense_1"]["kernel"] + h["Dense_1"]["bias"] for h in heads])  # fmt: skip
    return np.swapaxes(np.array(out), 0, 1)


def numpy_backward_transformer(p):
    """With queries and keys drawn at random, which must not matter, and several attention heads."""
    used = iter(range(100)), iter(range(100))

    def next_dense(x):
        return dense(p, x, next(used[0]))

    def next_norm(x):
        return norm(p, x, next(used[1]))

    def attention(x, memory):
        value, size = next_dense(memory), LIMIT // 2
        parts = []
        for head in range(2):
            query, key = x @ RNG.normal(size=(LIMIT, size)), memory @ RNG.normal(size=(LIMIT, size))
            weights = softmax((query * key).sum(-1)[:, None, None])  # one query, one key
            parts.append(weights[:, 0] * value[:, head * size : (head + 1) * size])
        return next_dense(side(*parts))

    def feed_forward(x):
        return next_dense(relu(next_dense(x)))

    source = next_dense(S)
    for _ in range(2):
        source = next_norm(source + attention(source, source))
        source = next_norm(source + feed_forward(source))
    source = next_norm(source)
    target = np.broadcast_to(p["query"], source.shape)
    for _ in range(2):
        target = next_norm(target + attention(target, target))
        target = next_norm(target + attention(target, source))
        target = next_norm(target + feed_forward(target))
    return next_dense(next_norm(target))


NUMPY = {
    "forward_mlp": numpy_forward_mlp,
    "forward_direct": numpy_forward_direct,
    "forward_attention": numpy_forward_attention,
    "backward_mlp": lambda p: perceptron(p, S, 4),
    "backward_transformer": numpy_backward_transformer,
    "task_actor": numpy_task_actor,
}


def test_networks_are_their_formulas_and_depend_on_every_input(params):
    def values_and_slopes(name, inputs):
        def total(*inputs):
            out = SMALL[name].apply(params[name], *inputs)
            return jnp.square(out).sum(), out

        (_, out), slopes = jax.value_and_grad(total, argnums=range(len(inputs)), has_aux=True)(*inputs)
        return out, slopes

    computed = jax.jit(lambda: {name: values_and_slopes(name, INPUTS.get(name, (S,))) for name in SMALL})()
    for name, (out, slopes) in computed.items():
        expected = NUMPY[name](jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[name]))
        np.testing.assert_allclose(out, expected, rtol=2e-3, atol=2e-4, err_msg=name)
        for slope in slopes:
            assert np.abs(slope).max(axis=1).min() > 1e-6, name


def test_several_actions_for_one_state_and_task(params):
    candidates = RNG.normal(size=(3, 4, 2)).astype(np.float32)

    @jax.jit
    def run():
        found = {}
        for name in ("forward_mlp", "forward_attention"):
            at_once = SMALL[name].apply(params[name], S, candidates, Z)
            each = jnp.stack([SMALL[name].apply(params[name], S, a, Z) for a in candidates], axis=1)
            one_task = SMALL[name].apply(params[name], S, A, Z[0])
            found[name] = at_once, each, one_task, SMALL[name].apply(params[name], S, A, jnp.tile(Z[0], (4, 1)))
        return found

    for at_once, each, one_task, tiled in run().values():
        assert at_once.shape == (2, 3, 4, D)
        np.testing.assert_allclose(at_once, each, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one_task, tiled, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="width 8"):
        jax.eval_shape(lambda: SMALL["forward_mlp"].apply(params["forward_mlp"], S, A, Z[:, :4]))


def test_dropout_needs_a_key(params):
    names = ("forward_attention", "backward_transformer")

    def at(name, key):
        return SMALL[name].apply(params[name], *INPUTS.get(name, (S,)), key=key)

    keys = jax.random.split(jax.random.key(1))[jnp.array([0, 1, 0])]
    for plain, dropped in jax.jit(lambda: [(at(n, None), jax.vmap(lambda k, n=n: at(n, k))(keys)) for n in names])():
        np.testing.assert_array_equal(dropped[0], dropped[2])
        assert np.abs(plain - dropped[0]).max() > 1e-3
        assert np.abs(dropped[0] - dropped[1]).max() > 1e-3


def test_all_dropout_masks_come_from_one_draw_and_are_used_up():
    rows, rate = 4096, 0.1
    drop = successor._dropout(jax.random.key(0), rate, (rows,), 6)
    first, second = drop(jnp.ones((rows, 2))), drop(jnp.ones((rows, 4)))
    zeros = np.concatenate([first, second], axis=1) == 0
    np.testing.assert_allclose(zeros.mean(axis=0), rate, atol=4 * math.sqrt(rate * (1 - rate) / rows))
    np.testing.assert_allclose(np.corrcoef(zeros.T), np.eye(6), atol=0.07)  # columns of their own
    assert float(second.max()) == pytest.approx(1 / (1 - rate))
    for module, shape in ((successor._Attention(2, 7), (3, 2, 4)), (successor._OneToken(4, 5, 2, 2, 7), (3, 4))):
        used = []

        def count_columns(x, used=used):
            used.append(x.shape[-1])
            return x

        jax.eval_shape(lambda m=module, s=shape, d=count_columns: m.init(jax.random.key(0), jnp.zeros(s), d))
        assert sum(used) == (module.dropped(4) if len(shape) == 3 else module.dropped())


def test_linear_layers_start_orthogonal_with_zero_biases():
    for name, params in made().items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            text = jax.tree_util.keystr(path)
            if text.endswith("['bias']"):
                assert not np.any(leaf), (name, text)
            if text.endswith("['kernel']"):
                for kernel in np.asarray(leaf).reshape(-1, *leaf.shape[-2:]):
                    gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
                    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-4, err_msg=name + text)


def test_orthogonal_kernels_are_uniform_and_call_no_lapack():
    """LAPACK's threads, called from two devices of a CPU at once, wait for one another for ever."""
    normal = np.random.default_rng(0).normal(size=(400, 3, 2)).astype(np.float32)
    kernels = np.asarray(jax.jit(feedforward._orthonormal)(normal))
    np.testing.assert_allclose(kernels.mT @ kernels, np.tile(np.eye(2), (400, 1, 1)), atol=1e-4)
    np.testing.assert_allclose(kernels.mean(axis=0), 0.0, atol=5 * 3**-0.5 / 20)
    np.testing.assert_allclose(np.square(kernels).mean(axis=0), 1 / 3, atol=5 * 0.3 / 20)
    square = np.asarray(feedforward._orthonormal(np.random.default_rng(1).normal(size=(1, 64, 64)).astype(np.float32)))[
        0
    ]
    np.testing.assert_allclose(square.T @ square, np.eye(64), atol=1e-4)
    for network in SMALL.values():
        assert "lapack" not in jax.jit(network.init).lower(jax.random.key(0)).as_text()


def test_wide_orthogonal_kernels_are_made_in_blocks_and_are_as_uniform():
    """Entries of a uniform orthogonal matrix have mean 0, second moment 1/n and fourth moment 3/(n (n + 2))."""
    n, normal = 512, np.random.default_rng(0).normal(size=(1, 512, 512)).astype(np.float32)
    kernel = np.asarray(jax.jit(feedforward._orthonormal)(normal), np.float64)[0]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(n), atol=2e-5)
    for columns in np.split(kernel, 8, axis=1):  # 32,768 entries each
        np.testing.assert_allclose(columns.mean() * n**0.5, 0.0, atol=0.03)
        np.testing.assert_allclose(np.square(columns).mean() * n, 1.0, rtol=1e-4)
        np.testing.assert_allclose((columns**4).mean() * n * (n + 2), 3.0, atol=0.25)
    first = normal[0, :, :64]  # the first block is the nearest to its normal numbers, which make it positive
    left, _, right = np.linalg.svd(first.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(kernel[:, :64], left @ right, atol=2e-5)
