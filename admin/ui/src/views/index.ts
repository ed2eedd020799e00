// The views, in the order of the rail. key follows g on the keyboard.

export interface View { path: string; title: string; key: string; icon: string; seldom?: boolean }

export const views: View[] = [
  { path: '', title: 'Overview', key: 'o', icon: 'M1.5 9h3l2-5.5 3 9 2-3.5h3' },
  { path: 'frontends', title: 'Frontends', key: 'f', icon: 'M2 3.5h5v9H2zM7 8h7M11 5l3 3-3 3', seldom: true },
  { path: 'pools', title: 'Pools', key: 'p', icon: 'M2 2.5h12v3H2zM2 6.5h12v3H2zM2 10.5h12v3H2z' },
  { path: 'sessions', title: 'Sessions', key: 's', icon: 'M1.5 5h10M9 2.5L11.5 5 9 7.5M14.5 11h-10M7 8.5L4.5 11 7 13.5' },
  { path: 'limits', title: 'Limits', key: 'l', icon: 'M2 12a6 6 0 1 1 12 0M8 12l3-4.5', seldom: true },
  { path: 'events', title: 'Events', key: 'e', icon: 'M8 1.5v2M8 4.5a4 4 0 0 1 4 4v3l1.5 1.5h-11L4 11.5v-3a4 4 0 0 1 4-4zM6.5 14.5h3' },
  { path: 'certificates', title: 'Certificates', key: 'c', icon: 'M3.5 7h9v7h-9zM5.5 7V5a2.5 2.5 0 0 1 5 0v2', seldom: true },
  { path: 'configuration', title: 'Configuration', key: 'd', icon: 'M2 4h7M13 4h1M11 2.5v3M2 8h2M8 8h6M6 6.5v3M2 12h6M12 12h2M10 10.5v3', seldom: true },
  { path: 'process', title: 'Process', key: 'r', icon: 'M4.5 4.5h7v7h-7zM6 2v2.5M10 2v2.5M6 11.5V14M10 11.5V14M2 6h2.5M2 10h2.5M11.5 6H14M11.5 10H14', seldom: true },
]
