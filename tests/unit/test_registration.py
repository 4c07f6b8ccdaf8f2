# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys


def test_importing_the_package_alone_does_not_import_anomalib():
    code = (
        "import sys\n"
        "hooks = list(sys.meta_path)\n"
        "import anomalib_ncd\n"
        "assert not {'anomalib', 'lightning', 'torch'} & set(sys.modules)\n"
        "assert sys.meta_path == hooks\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
