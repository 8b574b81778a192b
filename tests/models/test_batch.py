from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.errors import ArtefactError
from models.artefact import load
from models.batch import LIMITS, Engine
from models.encoding import Input
from models.registry import models_folder
from models.rulebooks import rulebook
from tests.ground import ground


@pytest.mark.parametrize(
    ("foreign", "problem"),
    [
        (Input("sales_cv_12m_bp", 0), "sales_cv_12m_bp is shown only"),
        (Input("invoices_out_12m", -1), "invoices_out_12m is shown only"),
        (Input("sales_12m_fen", 1, "log"), "sales_12m_fen does not run as the catalogue says"),
        (Input("moon_phase", -1), "moon_phase is no model input, but a direction is promised"),
    ],
)
def test_a_model_that_sees_what_is_not_admissible_is_refused(foreign: Input, problem: str) -> None:
    town = ground()
    model = load(models_folder(town.home) / town.champion)
    let_in = replace(model, pipeline=replace(model.pipeline, inputs=(*model.inputs, foreign)))
    with pytest.raises(ArtefactError) as refused:
        Engine(let_in, rulebook("torch-points"))
    assert any(problem in one for one in refused.value.problems)


def test_a_column_to_try_may_enter_without_a_promise() -> None:
    town = ground()
    model = load(models_folder(town.home) / town.champion)
    tried = replace(model, pipeline=replace(model.pipeline, inputs=(*model.inputs, Input("moon_phase", 0))))
    assert Engine(tried, rulebook("torch-points")).model is tried


def test_the_limits_file_has_the_columns_that_others_rely_on(tmp_path: Path) -> None:
    assert dict(ground().copy(tmp_path).limits.schema) == LIMITS
