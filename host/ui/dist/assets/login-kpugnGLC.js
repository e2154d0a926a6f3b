import{u as n}from"./index-QX9ItLxR.js";function r(){return n("h1",{children:"Login"})}export{r as default};
