# The worker and its commands. Node runs the sources as they are; nothing is built.
FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json LICENSE ./
COPY src ./src
COPY workers ./workers
USER node
ENTRYPOINT ["node", "src/cli/cli.ts"]
CMD ["worker"]
