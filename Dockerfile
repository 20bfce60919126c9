# One image for every part: `scanomaly worker`, `scanomaly submit`, …
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 scanomaly && install -d -o scanomaly /scans /home/scanomaly/data /home/scanomaly/.cache
WORKDIR /opt/scanomaly
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY models models
COPY producer producer
COPY worker worker
RUN pip install --no-cache-dir -c constraints.txt '.[worker,offline,postgres]'

USER scanomaly
ENV SCANOMALY_HOME=/home/scanomaly/data
WORKDIR /scans
ENTRYPOINT ["scanomaly"]
CMD ["worker"]
