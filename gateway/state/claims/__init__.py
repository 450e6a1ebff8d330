"""Claims of holders on subjects: their priority, their end, and for how long others wait afterwards."""
