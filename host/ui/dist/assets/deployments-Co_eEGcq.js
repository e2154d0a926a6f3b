import{u as r}from"./index-QX9ItLxR.js";function n({id:e}){return r("h1",{children:e})}export{n as default};
