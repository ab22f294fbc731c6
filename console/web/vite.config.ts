import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// RACKSEED_URL is a running boot service ("make dev" prints it), for working on
// the console with hot reload.
export default defineConfig({
  plugins: [svelte()],
  build: { target: 'es2022', sourcemap: false },
  server: {
    proxy: { '/api': { target: process.env.RACKSEED_URL ?? 'https://127.0.0.1:8443', secure: false, ws: true } },
  },
})
