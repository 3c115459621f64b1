"""What the chapters and experiments use: images, chunks, plots, tables."""
