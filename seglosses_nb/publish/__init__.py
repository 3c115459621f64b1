"""The main job: run every chapter, build the site, show it. It knows no loss.

`book` reads the table of contents, `parameters` what a chapter can be run with, `fingerprint` tells
what changed, `chapters` runs notebooks, `site` makes the pages with the extension `sphinx_site`,
`build` ties them together, `server` shows the result. Nothing here imports torch: a build with
nothing to do has to be quick.
"""
