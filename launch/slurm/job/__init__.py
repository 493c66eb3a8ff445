"""The script of a job: a head made of quoted values, and a body that is the same in every job."""
