"""What holds for all tests: none of them is judged by how long an example takes."""

import hypothesis

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
