echo "nothing here"
