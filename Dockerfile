# One image for every role: `serve` (the default), `worker`, and each other command. Node runs the sources as they are,
# so nothing is built. `docker build --target s3` makes the S3 server of docker-compose.yml instead.
#
# Any image with Node 24, npm and a user `node` can stand below:
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS manifest
WORKDIR /app
COPY package.json package-lock.json ./

# Without the optional ones, too: through them an omitted typescript would come back.
FROM manifest AS dependencies
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

# Of all dependencies miniflare alone, in the versions of the lock file.
FROM manifest AS s3-dependencies
RUN version=$(npm pkg get devDependencies.miniflare | tr -d '"') \
  && npm pkg delete dependencies devDependencies \
  && npm pkg set "dependencies.miniflare=$version" \
  && npm install --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE} AS s3
WORKDIR /app
COPY --from=s3-dependencies /app/node_modules ./node_modules
COPY package.json src/embedded/local-s3.ts ./
RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 7820
ENTRYPOINT ["node", "local-s3.ts"]
CMD ["--host", "0.0.0.0", "--public-host", "s3", "--port", "7820", "--folder", "/data", "--bucket", "outlast"]
HEALTHCHECK --interval=2s --timeout=5s --start-period=30s --retries=15 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:7820/').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]

FROM ${NODE_IMAGE}
ENV NODE_ENV=production
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json LICENSE ./
COPY src ./src
COPY workers ./workers
USER node
EXPOSE 7700
ENTRYPOINT ["node", "src/cli/cli.ts"]
CMD ["serve"]
# Of `serve`. A worker listens to nothing: run it with --no-healthcheck, as docker-compose.yml does and says why.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OUTLAST_PORT || 7700}/health`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
