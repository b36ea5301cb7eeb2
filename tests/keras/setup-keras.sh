#!/bin/sh
# Make the environment in which tests/keras/*.py record what real Keras answers.
#
# usage: tests/keras/setup-keras.sh [directory]      (default: ${TMPDIR:-/tmp}/dwconv-keras)
#
# Needed only to record tests/data/*.json anew: the test suite and CI read those files and never run this.
# The versions are fixed, so that a new recording differs only where dwconv's own cases do.
set -eu

venv=${1:-${TMPDIR:-/tmp}/dwconv-keras}
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'tensorflow-cpu==2.21.*' 'keras==3.15.*' 'tf_keras==2.21.*'
KERAS_HOME="$venv/keras-home" TF_CPP_MIN_LOG_LEVEL=3 "$venv/bin/python" -c \
    'import keras, tensorflow; print("keras", keras.__version__, "on tensorflow", tensorflow.__version__)'
echo "ready: KERAS_HOME=$venv/keras-home $venv/bin/python tests/keras/record_registries.py"
