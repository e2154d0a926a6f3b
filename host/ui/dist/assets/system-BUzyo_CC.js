import{u as e}from"./index-QX9ItLxR.js";function r(){return e("h1",{children:"System"})}export{r as default};
