"""Zero-shot and retrieval against loops over samples, and at their limits."""

import numpy as np
import pytest

from ssl_scale.probes.retrieval import retrieval_scores
from ssl_scale.probes.zero_shot import class_embeddings, zero_shot_scores

RNG = np.random.default_rng(0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_prompts_are_averaged_as_directions() -> None:
    prompts = np.array([[10.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    expected = [[np.sqrt(0.5), np.sqrt(0.5)], [0.6, 0.8]]
    embeddings = class_embeddings(prompts, np.array([0, 0, 1]))
    np.testing.assert_allclose(embeddings, expected)


def test_zero_shot_takes_the_class_of_the_nearest_ensemble() -> None:
    images, labels = RNG.normal(size=(50, 6)), RNG.integers(3, size=50)
    prompts, prompt_classes = RNG.normal(size=(12, 6)), np.arange(12) % 3
    hits = 0
    for image, label in zip(images, labels, strict=True):
        ensembles = [
            sum(p / np.linalg.norm(p) for p in prompts[prompt_classes == c]) for c in range(3)
        ]
        hits += int(np.argmax([cosine(image, e) for e in ensembles]) == label)
    scores = zero_shot_scores(images, labels, prompts, prompt_classes)
    assert scores == {"accuracy": hits / 50}


def test_a_class_without_prompt_is_named() -> None:
    with pytest.raises(ValueError, match=r"every class must have a prompt, but \[1\] have none"):
        class_embeddings(np.ones((2, 3)), np.array([0, 2]))


@pytest.mark.parametrize("num_captions", [40, 12])
def test_retrieval_equals_a_loop_over_queries(num_captions: int) -> None:
    captions = np.arange(40) % num_captions
    images, texts = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 5))
    scores = retrieval_scores(images, texts, captions, ks=(1, 3))
    for name, queries, gallery in (
        ("image_to_text", images, texts),
        ("text_to_image", texts, images),
    ):
        ranks = []
        for query, caption in zip(queries, captions, strict=True):
            order = np.argsort([-cosine(query, item) for item in gallery])
            ranks.append(1 + next(r for r, place in enumerate(order) if captions[place] == caption))
        assert scores[f"{name}/recall@1"] == np.mean(np.array(ranks) <= 1)
        assert scores[f"{name}/recall@3"] == np.mean(np.array(ranks) <= 3)
        # Several right answers above the best wrong one do not push each other down.
        assert scores[f"{name}/mean_rank"] == np.mean(ranks)


def test_equal_captions_are_all_right() -> None:
    """Text features are equal where captions are, so the wrong row of the right caption wins."""
    captions = np.array([0, 0, 1, 1])
    texts = np.eye(2)[captions]
    images = texts + 0.1 * RNG.normal(size=(4, 2))
    scores = retrieval_scores(images, texts, captions)
    assert scores["image_to_text/recall@1"] == scores["text_to_image/recall@1"] == 1.0
    assert scores["image_to_text/mean_rank"] == 1.0


def test_collapsed_features_find_nothing() -> None:
    scores = retrieval_scores(np.ones((30, 4)), np.ones((30, 4)), np.arange(30))
    assert scores["image_to_text/recall@5"] == scores["text_to_image/recall@5"] == 0.0
    assert scores["image_to_text/mean_rank"] == 30


def test_many_queries_are_ranked_in_pieces() -> None:
    features = RNG.normal(size=(2100, 8))
    scores = retrieval_scores(features, features, np.arange(2100))
    assert scores["image_to_text/recall@1"] == scores["text_to_image/mean_rank"] == 1.0
