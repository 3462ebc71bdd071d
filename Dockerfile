# Two images, neither run as root:
#   docker build -t captioner .                        light: the default model, on ONNX Runtime
#   docker build -t captioner:full --target full .     all extras: training, published models, videos, scores with Java
#   docker run --rm -v "$PWD:/work" captioner caption photo.jpg
# Files that it writes belong to user 1000; give --user "$(id -u)" for another.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS base
RUN useradd --uid 1000 --create-home captioner && install -d -o captioner -m 1777 /cache
# One volume keeps what is downloaded and indexed.
ENV CAPTIONER_CACHE=/cache/captioner HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch
WORKDIR /work
ENTRYPOINT ["captioner"]
CMD ["--help"]

FROM base AS full
RUN apt-get update && apt-get install -y --no-install-recommends default-jre-headless && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/captioner-*.whl)[all]"
USER captioner

# The last target is the one that is built without --target.
FROM base AS light
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir /wheels/captioner-*.whl
USER captioner
