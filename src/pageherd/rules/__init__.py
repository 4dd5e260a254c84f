"""The design space: one file per decision point, and the table of kernels that choose from it.

`kernels` can be read without loading the machine; everything else imports it.
"""
