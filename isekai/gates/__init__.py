"""Gates: each looks at a picture as it is drawn, and turns it down with a reason."""
