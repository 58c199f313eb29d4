from pathlib import Path
import pytest,torch
torch.set_num_threads(1)
@pytest.fixture(scope="session")
def shared(): return Path('/work/shared')
