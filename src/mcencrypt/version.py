"""The version, which stands here and nowhere else: a clone without tags, a tarball and an image all know it."""

# PEP 440. The packages' builds read this line (pyproject.toml, [tool.hatch.version]); CHANGELOG.md has a section of it.
VERSION = "0.2.0.dev0"
