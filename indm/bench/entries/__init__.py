"""Maps from outside, judged at equal compute on seeds that their authors cannot choose."""
