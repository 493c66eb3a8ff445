"""Classification by caption: the class whose prompts lie nearest to the image."""

import numpy as np
from jaxtyping import Float, Int

from ssl_scale.probes.similarity import unit_rows


def class_embeddings(
    prompts: Float[np.ndarray, "prompts width"], prompt_classes: Int[np.ndarray, " prompts"]
) -> Float[np.ndarray, "classes width"]:
    """One direction for each class: the mean of its prompts' directions.

    Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
    section 3.1.4 (ensembles over the embedding space).

    Args:
        prompts: features of prompts, several for each class.
        prompt_classes: class of each prompt.

    Raises:
        ValueError: a class number up to the largest has no prompt.
    """
    num_classes = int(prompt_classes.max()) + 1
    missing = sorted(set(range(num_classes)) - set(prompt_classes.tolist()))
    if missing:
        raise ValueError(f"every class must have a prompt, but {missing} have none")
    directions = unit_rows(prompts)
    means = [directions[prompt_classes == label].mean(0) for label in range(num_classes)]
    return unit_rows(np.stack(means))


def zero_shot_scores(
    images: Float[np.ndarray, "images width"],
    labels: Int[np.ndarray, " images"],
    prompts: Float[np.ndarray, "prompts width"],
    prompt_classes: Int[np.ndarray, " prompts"],
) -> dict[str, float]:
    """``accuracy`` of taking the nearest class; of equally near ones, the first.

    Args:
        images: features in the space that images and texts share.
        labels: class numbers.
        prompts: features of the prompts, in the same space.
        prompt_classes: class of each prompt.
    """
    similarity = unit_rows(images) @ class_embeddings(prompts, prompt_classes).T
    return {"accuracy": float((similarity.argmax(1) == labels).mean())}
