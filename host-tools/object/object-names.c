/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects as they are named on command lines for a VM. */
#include "object/object.h"
#include "error.h"

gboolean
object_read_names (const char *command, char **names, DomainObjects *ret_objects, GError **error) {
  for (; names && *names; names++) {
    if (!object_check_name (*names, error))
      return FALSE;
    if (!domain_objects_add (ret_objects, *names))
      return ctl_fail (error, CTL_ERROR_USAGE, "%s: --object: a VM can have %u objects, and these are more", command,
                       DOMAIN_OBJECTS_MAX);
  }
  return TRUE;
}

gboolean
object_check_all (const DomainObjects *objects, GError **error) {
  for (unsigned i = 0; i < objects->n; i++) {
    g_autoptr (Object) object = object_read (objects->items[i].name, error);

    if (!object)
      return FALSE;
    if (object->problem)
      return ctl_fail (error, CTL_ERROR_REFUSED, "object '%s': %s; remove it and import it again", object->name,
                       object->problem->message);
  }
  return TRUE;
}
