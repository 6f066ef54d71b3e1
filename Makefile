# `make help` lists the targets. Everything runs in .venv, which `make env` makes from uv.lock.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# uv: the one on the PATH, else the user's, else our own copy, which needs no more than pip.
UV := $(firstword $(shell uv --version >/dev/null 2>&1 && echo uv) $(wildcard $(HOME)/.local/bin/uv) .uv/bin/uv)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Trust what the system trusts, as pip does: companies' proxies have certificates of their own.
export UV_SYSTEM_CERTS := 1

.PHONY: help env data weights repro test lint hooks lock notebooks bench ablation lab app release card \
	groups oracle views screenshots docs paper clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## *"} /^[a-z]+:.*##/ {printf "make %-12s %s\n", $$1, $$2}' Makefile

env: $(filter .uv/bin/uv,$(UV))  ## make or update .venv from uv.lock
	@$(UV) sync --frozen --quiet

.uv/bin/uv:
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target .uv uv

data: env  ## fetch data/ from the DVC remote
	@dvc pull --quiet data.dvc || dvc pull data.dvc  # the second says what is wrong

repro: data  ## run the stages of the pipeline that changed; figures and numbers land in reports/
	@dvc repro

weights: data  # the pulled face model and network, where the pipeline hasn't made its own
	@[ -f build/unet.safetensors ] && [ -f build/face_model.safetensors ] || dvc pull --quiet

test: weights lint  ## run everything that CI runs: lint, unit tests, notebooks
	pytest -q -n auto --dist loadfile tests
	pytest -q --nbval notebooks

lint: env  ## check style, format and types
	ruff check .
	ruff format --check .
	mypy

hooks: env  ## check style, notebooks, environment.yml, uv.lock and file sizes before every commit
	@pre-commit install

lock: $(filter .uv/bin/uv,$(UV))  ## renew uv.lock after a change of the dependencies
	@$(UV) lock --quiet

notebooks: weights  ## execute the notebooks at smoke scale and store their outputs
	@python -m p2f_lib.notebook_engine refresh notebooks/*.ipynb

bench: weights  ## time the library against its references into reports/benchmarks.csv
	@python -m benchmarks

ablation: weights  ## train without one ingredient of the photographs at a time (half an hour)
	@p2f ablation

lab: weights  ## open the notebooks in JupyterLab
	@jupyter lab

app: weights  ## serve the notebook explore as a page without code, on this machine only
	@voila notebooks/explore.ipynb --Voila.ip=127.0.0.1 --TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_cell_tags=in-python

# Its second round goes on from the weights of the first, on other people.
release: weights  ## train the network that is released, by params/release.yaml or RECIPE=FILE
	@p2f train --config $(or $(RECIPE),params/release.yaml) --out build/release
ifndef RECIPE
	@p2f train --config params/release.yaml -S seed=1 -S train.epochs=4 \
		--start build/release/unet.safetensors --out build/release_2
	@cp build/release_2/unet.safetensors build/release/
endif
	@cp build/face_model.safetensors build/release/unet.safetensors data/release/

card: data  ## measure the released weights into reports/model_card.md; PHOTOS=FOLDER on these, too
	@p2f model-card --weights data/release $(if $(PHOTOS),--photos $(PHOTOS))

groups: weights  ## errors by skin tone, age and head pose on synthetic people, into reports/groups.csv
	@p2f groups

screenshots: weights  ## pictures of the notebook explore in Chromium, for reports/figures
	@python -m tools.screenshots

oracle: weights  ## how exact cameras and meshes are, given true planes, into reports/oracle.csv
	@p2f oracle

views: weights  ## turn, relight and mix the bundled portraits into reports/figures/views.jpg
	@p2f views --out reports/figures/views.jpg

docs: env  ## build the documentation into build/docs, without a network
	@sphinx-build -W --keep-going -q -E docs build/docs
	@echo "Written: build/docs/index.html"

paper: data  ## run the pipeline at the paper's scale; `git checkout params.yaml` goes back
	cp params/paper.yaml params.yaml
	@dvc repro

clean:  ## remove what the pipeline made and DVC's cache of it; reports/ and data/ stay
	rm -rf build docs/generated .dvc/cache .dvc/tmp .mypy_cache .pytest_cache .ruff_cache
