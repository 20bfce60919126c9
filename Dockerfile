# Two images: `producer` submits, polls, looks after jobs and serves them by HTTP, without torch; `worker`, the default, computes too.
# What a change of the code invalidates comes last: torch is installed again only when the requirements change.

FROM python:3.12-slim AS requirements
WORKDIR /source
COPY pyproject.toml ./
RUN mkdir /requirements && python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; \
print(*project['dependencies'], *(line for extra in ('postgres', 'server', 'medical', 's3', 'gs', 'http') for line in extras[extra]), sep='\n', file=open('/requirements/producer.txt', 'w')); \
print(*extras['worker'], *extras['offline'], sep='\n', file=open('/requirements/worker.txt', 'w'))"
COPY constraints.txt /requirements/

FROM python:3.12-slim AS wheel
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY producer producer
COPY worker worker
RUN pip wheel --no-deps --wheel-dir /wheel .

FROM python:3.12-slim AS base
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
ENV PYTHONUNBUFFERED=1 HOME=/var/lib/scanomaly SCANOMALY_HOME=/var/lib/scanomaly
# Open to any user id: the container may have to run as whoever owns the reports' folder.
RUN useradd --uid 1000 --home-dir "$HOME" --no-create-home scanomaly \
    && install -d -m 1777 /scans "$HOME" "$HOME/.cache" "$HOME/reports"
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    pip install --cache-dir /root/.cache/pip -c /requirements/constraints.txt -r /requirements/producer.txt
WORKDIR /scans
STOPSIGNAL SIGTERM
ENTRYPOINT ["scanomaly"]

FROM base AS producer
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --no-deps /wheel/*.whl && pip check
USER 1000:1000
CMD ["--help"]

FROM base AS worker
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    pip install --cache-dir /root/.cache/pip -c /requirements/constraints.txt -r /requirements/worker.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --no-deps /wheel/*.whl && pip check
USER 1000:1000
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s CMD ["scanomaly", "workers", "--here"]
CMD ["worker"]
