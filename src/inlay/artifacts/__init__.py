"""Files that leave inlay and come back: safetensors with metadata, written atomically."""
