import preact from '@preact/preset-vite'
import { defineConfig } from 'vite'

// The built files are committed, so a build must give the same bytes wherever it runs: no paths, no dates, no maps.
export default defineConfig({
  plugins: [preact({ devToolsEnabled: false, prefreshEnabled: false })],
  base: './',
  build: {
    target: 'es2022',
    assetsInlineLimit: 0, // the policy of the page allows no data: but pictures
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600, // the editor, which is loaded when somebody edits
  },
  // `npm run dev` beside a running awe4lb.
  server: { proxy: { '/api': { target: 'http://127.0.0.1:7070', changeOrigin: true } } },
})
