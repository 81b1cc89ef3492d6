# syntax=docker/dockerfile:1

# Another base, or the same by its digest: `node tools/image/pin-base.mjs` writes the digest here.
ARG BASE_IMAGE=node:24-bookworm-slim

# Everything that the compiler needs; nothing of this stage but dist/ goes on.
FROM ${BASE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY nest-cli.json tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY client ./client
COPY scripts/build-frontend.mjs scripts/page-modules.mjs scripts/project.mjs /app/scripts/
# The emulator shows codes to every visitor: it has no place in an image that may face the internet.
RUN npm run build && mv dist/emulator /emulator

# Its own stage, so that a change of the source does not install the packages again.
FROM ${BASE_IMAGE} AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# Optional ones too: without it npm keeps the compiler and Express, which ours may use if they are there, and tests need.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund && npm cache clean --force

# `docker build --target emulator` makes an image of the emulator alone: it needs no package and no file of the service.
FROM ${BASE_IMAGE} AS emulator
WORKDIR /app
COPY --from=build /emulator ./emulator
ENV EMULATOR_HOST=0.0.0.0
USER 1000:1000
EXPOSE 3001
CMD ["node", "emulator/main.js"]

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ENV NODE_ENV=production
WORKDIR /app
# Owned by root and read only by the service, which writes nothing but its log to stdout.
COPY package.json LICENSE ./
COPY --from=packages /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# Makes signing keys, in a folder or in a Secret of Kubernetes.
COPY scripts/keys.mjs scripts/key-into-secret.mjs scripts/signing-key.mjs ./scripts/
# `node` by its number: Kubernetes' runAsNonRoot cannot tell that a name is not root.
USER 1000:1000
EXPOSE 3000 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=3s --start-period=15s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.MANAGEMENT_PORT || process.env.PORT || 3000}/health/live`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# Last, because they change with every build.
LABEL org.opencontainers.image.title="otp-login" \
  org.opencontainers.image.description="Phone-OTP login for India: a code by SMS in, an access token out" \
  org.opencontainers.image.licenses="MIT" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.base.name="${BASE_IMAGE}"
# In exec form: a shell in between would not pass SIGTERM on.
CMD ["node", "dist/main.js"]
