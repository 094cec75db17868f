"""The synthetic archive: invented people walk past invented cameras, with the truth about every pixel."""
