"""Elementwise functions as machine code for the CPU, from the same expressions that PyTorch computes step by step.

`fused` decides where it is taken; `loops` turns expressions and their derivatives into a loop; `arithmetic` says what
stands for each operation (`exponential`, `hyperbolic`, `circular`, `normal`) on the vectors of `lanes`, with
polynomials from `coefficients`; `machine` compiles with llvmlite (`pip install optrode[fast]`), which is imported when
a large tensor first comes; `threads` shares the work. Without llvmlite all is computed by the operations of torch.
"""
