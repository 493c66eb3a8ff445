import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale import rng
from ssl_scale.data.seeds import combine, hash_names, mix, sample_seeds

INT64 = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=80)
@given(st.lists(INT64, min_size=1, max_size=5), st.lists(INT64, max_size=4))
def test_numpy_and_torch_derive_the_same_seeds(seeds: list[int], words: list[int]) -> None:
    by_numpy = combine(np.array(seeds), *words).view(np.int64)
    by_torch = rng.combine(torch.tensor(seeds), *words)
    assert by_numpy.tolist() == by_torch.tolist()
    assert mix(np.array(seeds).view(np.uint64)).view(np.int64).tolist() == (
        rng.mix(torch.tensor(seeds)).tolist()
    )


@settings(max_examples=20)
@given(INT64, st.lists(st.tuples(st.integers(0, 2**40), INT64), min_size=1, max_size=5))
def test_sample_seeds_are_what_torch_derives_from_the_same_words(
    run_seed: int, samples: list[tuple[int, int]]
) -> None:
    epochs, hashes = (np.array(column, dtype=np.int64) for column in zip(*samples, strict=True))
    by_torch = rng.combine(
        torch.tensor([run_seed] * len(samples)), torch.from_numpy(epochs), torch.from_numpy(hashes)
    )
    assert sample_seeds(run_seed, epochs, hashes).tolist() == by_torch.tolist()


def test_names_hash_to_the_same_words_one_by_one_and_together() -> None:
    names = ["", "pictures/000001", "zwölf", "a/b"]
    assert hash_names(names).tolist() == [rng.hash_name(name) for name in names]
    assert hash_names([]).tolist() == []
