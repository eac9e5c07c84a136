"""What the parts of the page show: each module turns records into what one template prints."""
