import re
from pathlib import Path

import pytest

from tests.data.shards import digit_samples, write_folder

README = Path(__file__).parents[2] / "ssl_scale" / "data" / "README.md"


def test_the_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "digits", [digit_samples(40), digit_samples(60)[40:]])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(code, names)  # noqa: S102 - our own page
    assert names["sample"]["image"].shape == (1, 8, 8)
    step = next(iter(names["loader"]))
    assert step[0][0].fields["image"].shape == (64, 1, 8, 8)
