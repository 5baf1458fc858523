"""flash-attn 2 wheels that hold only the kernels asked for.

A package without dependencies beyond flash-attn's own build requirements, so that the same recipe
runs in a build stage of an image and on a bare machine with a GPU:

    python -m flash_attn_wheel build flash_attn-2.8.3.post2.tar.gz --preset llama --archs 80,90

Upstream's ``setup.py`` is run unchanged. Only what it hands to ``CUDAExtension`` is changed on the
way: its kernel files are compiled here (``compiling``), each once for every Python and distribution
(``objects``), and linked to what setup.py still builds, so that its metadata, its packages and its
C++ flags stay upstream's.

A call that needs something left out must raise, never answer wrongly:

* a head dimension or a type without kernels ends in a stub, generated here, that names it;
* a feature switched off is refused by upstream's own checks in ``flash_api.cpp``. Those checks
  exist only when the C++ compiler sees the same ``FLASHATTENTION_DISABLE_*`` macros as nvcc, so
  the macros go to both; and their messages are made to say how to get the feature.
"""
