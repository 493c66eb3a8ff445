import numpy as np
import torch

from ssl_scale.objectives.masked_pixels import cut_patches, normalize_patches
from ssl_scale.report.gallery import (
    Gallery,
    nearest,
    paste_patches,
    reconstruct,
    to_pictures,
    to_plane,
)
from tests.report.runs import make_gallery


def test_a_gallery_comes_back_as_it_was_saved(tmp_path):
    gallery = make_gallery()
    gallery.save(tmp_path)
    found = Gallery.read(tmp_path)
    assert found is not None
    assert found.query_names == gallery.query_names
    assert found.neighbour_names == gallery.neighbour_names
    assert found.classes == gallery.classes
    np.testing.assert_array_equal(found.neighbours, gallery.neighbours)
    np.testing.assert_array_equal(found.points, gallery.points)
    assert Gallery.read(tmp_path / "nowhere") is None


def test_an_empty_gallery_comes_back_empty(tmp_path):
    Gallery(step=3).save(tmp_path)
    found = Gallery.read(tmp_path)
    assert found is not None
    assert (found.step, found.classes, len(found.queries)) == (3, (), 0)


def test_fractions_become_pictures():
    values = np.array([[[[0.0, 0.5], [1.0, 2.0]]]])
    assert to_pictures(values)[0, :, :, 0].tolist() == [[0, 128], [255, 255]]
    assert to_pictures(np.zeros((1, 4, 4, 5))).shape == (1, 4, 5, 3)


def test_patches_are_pasted_where_the_objective_cut_them():
    pixels = torch.rand(2, 1, 3, 8, 12)
    patches = cut_patches(pixels, 4, 6)[:, 0].numpy()
    np.testing.assert_array_equal(paste_patches(patches, 4, 6, 3), pixels[:, 0].numpy())


def test_a_perfect_prediction_reconstructs_the_picture():
    true = torch.rand(2, 16, 4)
    hidden = np.zeros((2, 16), bool)
    hidden[:, ::3] = True
    shown, rebuilt = reconstruct(
        true.numpy(), normalize_patches(true).numpy(), hidden, is_normalized=True
    )
    np.testing.assert_allclose(rebuilt, true.numpy(), atol=1e-5)
    np.testing.assert_array_equal(shown[~hidden], true.numpy()[~hidden])
    assert np.ptp(shown[hidden]) == 0


def test_a_wrong_prediction_shows_in_hidden_patches_only():
    true, wrong = np.zeros((1, 4, 4)), np.ones((1, 4, 4))
    hidden = np.array([[True, False, False, True]])
    _, rebuilt = reconstruct(true, wrong, hidden, is_normalized=False)
    assert rebuilt[hidden].min() == 1 and rebuilt[~hidden].max() == 0


def test_nearest_is_by_direction_from_the_pools_mean():
    pool = np.array([[101.0, 100], [99, 100], [100, 101], [100, 99]])
    places, similarities = nearest(np.array([[100.2, 107.0]]), pool, 2)
    assert places.tolist() == [[2, 0]]
    np.testing.assert_allclose(similarities[0, 0], np.cos(np.arctan2(0.2, 7.0)))


def test_clusters_stay_apart_on_the_map():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 10, (3, 20))
    labels = np.arange(90) % 3
    for count in (90, 30):  # t-SNE, and principal components of few
        features = centres[labels[:count]] + rng.normal(0, 0.1, (count, 20))
        plane = to_plane(features)
        assert plane.shape == (count, 2)
        within = np.mean([plane[labels[:count] == c].std() for c in range(3)])
        between = np.std([plane[labels[:count] == c].mean(0) for c in range(3)])
        assert between > within
