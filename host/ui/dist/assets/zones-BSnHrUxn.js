import{u as r}from"./index-QX9ItLxR.js";function o({id:e}){return r("h1",{children:e})}export{o as default};
