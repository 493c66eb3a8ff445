"""Reading recipes: files, ``extends``, overrides, checks; what comes out is data, nothing built."""
