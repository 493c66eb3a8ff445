"""Finds the packages to install; everything else about the package stands in pyproject.toml.

The folders launch/, data_tools/ and recipes/ are installed under names that cannot collide in
site-packages. Setuptools finds packages by folder name only, hence these few lines instead of a
list that every new room would have to edit.
"""

from setuptools import find_packages, setup

INSTALLED_AS = {
    "launch": "ssl_scale_launch",
    "data_tools": "ssl_scale_data_tools",
    "recipes": "ssl_scale_recipes",
}

packages = find_packages(include=["ssl_scale", "ssl_scale.*"])
for folder, name in INSTALLED_AS.items():
    packages += [name, *(f"{name}.{inner}" for inner in find_packages(folder))]

setup(packages=packages, package_dir={name: folder for folder, name in INSTALLED_AS.items()})
