"""What tests of several rooms share, a file a concern; no test file imports another one."""
